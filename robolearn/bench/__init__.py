"""The commands that measure, and the tables that the documents make of their figures.

One command, one file, beside what these share. Only the command line and `robolearn.docs` import
from here.
"""
