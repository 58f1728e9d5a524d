"""What shows how good a restored volume is: figures with and without a reference.

Each accumulator here is a sum over blocks: ``a + b`` has seen the blocks of both, in any order.
"""
