"""The durable queue, its schedule, delivery and bounces."""
