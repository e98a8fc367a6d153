"""The service: the competition's HTTP interface and the page, over one predictor.

An event loop takes requests; one thread runs the network. `settings` says what is allowed,
`images` turns a request into levels and a mask into a reply, `desk` is the bounded queue in front
of the device, `app` and `page` are the routes. `platform` and `rehearsal` are the other side: what
a competitor calls.
"""
