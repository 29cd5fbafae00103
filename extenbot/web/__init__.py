"""The account pages: server-rendered, one form a page, no build step.

`site` puts them together. `pages` is what all of them share; the routes are in `doors` (log in, sign up), `bots`
(with `form` and `guides`, the values to paste into a PBX) and `calls`. `visits` says who asks and whether a form is
theirs, `views` turns values into HTML, `throttle` slows guessing down. `seams` names what the pages need of elsewhere.
"""
