"""The account pages: server-rendered, one form a page, no build step.

`site` has the routes, `visits` says who asks and whether a form is theirs, `views` turns
values into HTML, `guides` are the values to paste into a PBX, `throttle` slows guessing
down. `seams` names what the pages need of the store.
"""
