"""Final answers: finding them in a text, and telling whether two are the same."""
