"""Early classification of multivariate time series by sight and by number. See `dualmodal --help`."""
