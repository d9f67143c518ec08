"""Language models that several workloads run: their shapes, costs, modules and steps."""
