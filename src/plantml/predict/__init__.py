"""From a source to records: the part that detection, validation and the Python interface share."""
