//! From what clients send to what is meant: schema, host, port, vhost, app, stream, parameters.
