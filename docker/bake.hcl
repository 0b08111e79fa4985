# docker buildx bake -f docker/bake.hcl NAME ...      (`just build NAME` fills in the variables)

variable "BASE_IMAGE" { default = "" }
variable "PIP_INDEX_URL" { default = "" }
variable "PIP_EXTRA_INDEX_URL" { default = "" }
variable "PIP_TRUSTED_HOST" { default = "" }
variable "HTTP_PROXY" { default = "" }
variable "HTTPS_PROXY" { default = "" }
variable "NO_PROXY" { default = "" }
variable "USER_ID" { default = "1000" }
variable "TAG" { default = "latest" }
# one word in front of the images' names, such as registry.example.org/team/
variable "PREFIX" { default = "" }
variable "VERSION" { default = "unknown" }
variable "REVISION" { default = "unknown" }
variable "SOURCE" { default = "unknown" }

group "default" { targets = ["all"] }
group "all" { targets = ["package"] }

target "_common" {
  context    = "."
  dockerfile = "docker/Dockerfile"
  target     = "package"
  args = {
    # an empty one counts as not given
    BASE_IMAGE          = BASE_IMAGE != "" ? BASE_IMAGE : null
    PIP_INDEX_URL       = PIP_INDEX_URL != "" ? PIP_INDEX_URL : null
    PIP_EXTRA_INDEX_URL = PIP_EXTRA_INDEX_URL != "" ? PIP_EXTRA_INDEX_URL : null
    PIP_TRUSTED_HOST    = PIP_TRUSTED_HOST != "" ? PIP_TRUSTED_HOST : null
    HTTP_PROXY          = HTTP_PROXY != "" ? HTTP_PROXY : null
    HTTPS_PROXY         = HTTPS_PROXY != "" ? HTTPS_PROXY : null
    NO_PROXY            = NO_PROXY != "" ? NO_PROXY : null
    UID                 = USER_ID
    VERSION             = VERSION
    REVISION            = REVISION
    SOURCE              = SOURCE
  }
}

target "package" {
  name     = package
  matrix   = { package = ["timeseries-dualmodal", "retina-diffusion", "pair-compare-stacking", "mabe-behavior", "multimodal-fusion"] }
  inherits = ["_common"]
  args     = { PACKAGE = package }
  tags     = ["${PREFIX}${package}:${TAG}"]
}
