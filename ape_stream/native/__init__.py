"""C++ of our own: compiled by the user's compiler at first use, once per machine and source.

cxx      shared_library, load: a source file to a library of this process
cache    the files of what was compiled, named by a hash of what made them
arrays   arrays as arguments of C functions
threads  NumPy's linear algebra on one thread
"""
