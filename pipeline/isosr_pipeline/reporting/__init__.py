"""Reports: what restoration did, as pages that open in any browser, on any machine."""
