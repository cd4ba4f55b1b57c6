"""HTTP/1.1 for many calls at a time: connections, proxies, certificates, and the transport."""
