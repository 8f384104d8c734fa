"""What people and programs see: `terminal`, `pages` with `charts`, `notebook`, `markdown`, `data` and `perfetto`.

Each works from the JSON of a result (`Estimate.to_dict()`) and from what `facts` and `tables` say of it.
`files` lists the formats of each verb.
"""
