"""Tables, films, pictures and a panel of objects."""
