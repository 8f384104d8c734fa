"""Quantisation: named schemes, the plan that maps module paths to them, and what a checkpoint says about itself.

Import from the files: `schemes` (QuantSpec, SCHEMES), `plan` (QuantPlan, plan_from_request), `checkpoint`.
"""
