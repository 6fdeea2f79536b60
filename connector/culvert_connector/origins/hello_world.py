"""The page of the `hello_world` service: proof that the whole tunnel works, without an origin.

Responsible for a constant. Must not know anything about the request: nothing of a visitor's is ever echoed.
"""

from typing import Final

PAGE: Final = b"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>culvert: hello</title>
<style>body{font:1.1rem/1.5 system-ui,sans-serif;max-width:36rem;margin:15vh auto;padding:0 1rem}</style>
<h1>The tunnel works</h1>
<p>This page came from a culvert connector: your request reached the relay, travelled down a session that the
connector had dialled outward, and was answered there. Point the rule's <code>service</code> at your own server
next, for example <code>http://localhost:3000</code>.</p>
</html>
"""
