"""Loop IR to machine code by way of LLVM: text, optimisation, objects."""
