"""How do instances get in fast and whole: P-DATA read by ours, negotiation, release and abort by pynetdicom."""
