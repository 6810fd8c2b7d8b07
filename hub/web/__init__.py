"""The edges that speak HTTP: inbound requests, health, metrics, the operator's API and console."""
