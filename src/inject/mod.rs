//! What is put into a request: the secret, exactly where its placeholder stood.
