"""Docker, through its SDK: is this machine ready (`doctor`), does a built image keep its promises (`smoke`).

    sdk         the one door to the SDK: finding the engine, its errors as one line each
    engine      images, containers and volumes on an engine, and pruning them
    containers  running one to its end, stopping it, reading and copying out of it
    contents    what an image says about itself, and whether a secret is in it
    gpu         the GPUs of this machine, and the driver that an image's CUDA needs
    doctor      the preflight: one finding per check, with what to do about it
    smoke       the promises of an image, checked on the image

Images are built by the command line (`just build`), because the SDK has no BuildKit.
"""
