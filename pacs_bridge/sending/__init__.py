"""C-STORE as SCU at the speed of the wire: pynetdicom negotiates, releases and aborts; what lies between is ours."""
