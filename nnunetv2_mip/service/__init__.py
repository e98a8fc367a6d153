"""HTTP service: the interface of DM i AI and a web page, over one predictor.

The event loop takes requests and one thread runs the network. `app` builds the application from
`routes` (the interface) and `page_routes` (the page). `middleware` limits and logs each request,
`image_codec` decodes images and encodes masks, `request_queue` runs one inference at a time, and
`page_cases` holds the uploads of the page. The client side is in `nnunetv2_mip.dmiai`.
"""
