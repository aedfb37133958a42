"""When and where work is done: a durable queue, admission, workers; knows no DICOM."""
