"""`convdsl lsp`: what `editing` knows, by the Language Server Protocol."""
