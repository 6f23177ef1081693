"""The probe: the same requests to a stable server and a candidate, at the same moments."""
