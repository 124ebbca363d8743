// Nothing: its target has the headers compiled that the tests share.
