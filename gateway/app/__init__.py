"""Builds a running gateway from a config. The only package that names concrete stores, channels and upstreams."""
