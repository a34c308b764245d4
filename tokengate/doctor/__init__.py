"""``python -m tokengate doctor``: what works here, what does not and why, in one look.

- `findings`: one thing worth saying - what is so, what it costs, what to do
- `versions`: of Python, of this package and what it was built with, of its neighbours
- `examine`: everything that is looked at, and what is found
- `report`: the same for people
- `command`: the command line
"""
