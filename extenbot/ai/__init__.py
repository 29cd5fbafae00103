"""A conversation with a voice model, without sockets; audio is bytes here."""
