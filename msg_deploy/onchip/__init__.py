"""Networks on chips: do they fit, what do they compute there, and what a vendor's model says."""
