"""The only holder of identity keys, MFA sessions and the data key; sees no HTTP."""
