"""Checks of claims: one file = one thing that must hold between the numbers of a row or a table.

A check's file has the constant `CHECK`. It gives a verdict on every number that it concerns, and
nothing on numbers that it knows too little of. It never calls wrong what some reading of the
printed digits makes right.
"""
