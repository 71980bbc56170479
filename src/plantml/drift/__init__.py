"""Drift: is what comes in still like what was trained on?"""
