"""Numbers of a run for Prometheus (extra `metrics`).

collector  the statistics of a run as metric families
sink       the output `metrics:127.0.0.1:9464`, for runs without a page
"""
