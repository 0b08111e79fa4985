# docker buildx bake -f docker/bake.hcl NAME ...      (`just build NAME` fills in the variables)

variable "BASE_IMAGE" { default = "" }
variable "PIP_INDEX_URL" { default = "" }
variable "PIP_EXTRA_INDEX_URL" { default = "" }
variable "PIP_TRUSTED_HOST" { default = "" }
variable "USER_ID" { default = "1000" }
variable "TAG" { default = "latest" }
# one word in front of the images' names, such as registry.example.org/team/
variable "PREFIX" { default = "" }
variable "VERSION" { default = "unknown" }
variable "REVISION" { default = "unknown" }
variable "SOURCE" { default = "unknown" }

group "default" { targets = ["all"] }
group "all" {
  targets = ["timeseries-dualmodal", "retina-diffusion", "pair-compare-stacking", "mabe-behavior", "multimodal-fusion"]
}

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
    UID                 = USER_ID
    VERSION             = VERSION
    REVISION            = REVISION
    SOURCE              = SOURCE
  }
}

target "timeseries-dualmodal" {
  inherits = ["_common"]
  args     = { PACKAGE = "timeseries-dualmodal" }
  tags     = ["${PREFIX}timeseries-dualmodal:${TAG}"]
}

target "retina-diffusion" {
  inherits = ["_common"]
  args     = { PACKAGE = "retina-diffusion" }
  tags     = ["${PREFIX}retina-diffusion:${TAG}"]
}

target "pair-compare-stacking" {
  inherits = ["_common"]
  args     = { PACKAGE = "pair-compare-stacking" }
  tags     = ["${PREFIX}pair-compare-stacking:${TAG}"]
}

target "mabe-behavior" {
  inherits = ["_common"]
  args     = { PACKAGE = "mabe-behavior" }
  tags     = ["${PREFIX}mabe-behavior:${TAG}"]
}

target "multimodal-fusion" {
  inherits = ["_common"]
  args     = { PACKAGE = "multimodal-fusion" }
  tags     = ["${PREFIX}multimodal-fusion:${TAG}"]
}
