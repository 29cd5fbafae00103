"""Variables in instructions and welcome messages, and what cannot be done with them."""

from __future__ import annotations

import contextlib
import time

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from extenbot.errors import Invalid
from extenbot.prompt import LONGEST, Headers, check, filled


class Filling(SynchronousTestCase):
    def test_values(self) -> None:
        """Values stand in their places, conditions choose, and what there is no value for is nothing."""
        variables = {"caller": "+49301", "customer": {"name": "Ada", "orders": [7, 8]}, "vip": False}
        for text, said in (
            ("Hello {{customer.name}}!", "Hello Ada!"),
            ("{{caller}}{{nobody}}{{customer.nothing.at.all}}", "+49301"),
            ("{% if vip %}Dear{% elif customer %}Hello{% else %}Who{% endif %} there", "Hello there"),
            ("{{customer.orders|join(', ')}} {{customer.orders[0]}} {{name|default('you')}}", "7, 8 7 you"),
            ("{{customer|tojson}}", '{"name": "Ada", "orders": [7, 8]}'),
            ("{{caller|replace('+', '00')}} {{2.345|round(1)}} {{7.6|round|int}}", "0049301 2.3 8"),
            ("Ends with a line.\n", "Ends with a line.\n"),
        ):
            check(text, "instruction")
            self.assertEqual(filled(text, variables), said)

    def test_headers(self) -> None:
        """The PBX's own headers, in any letters."""
        variables = {"headers": Headers.of({"x-order-number": "7", "diversion": "<sip:200@pbx>"})}
        text = "{{headers['X-Order-Number']}} {{headers.x_order_number}} {{headers.diversion}}{{headers.other}}"
        self.assertEqual(filled(text, variables), "7 7 <sip:200@pbx>")

    def test_values_are_no_templates(self) -> None:
        """What a caller or a server calls itself is never read as a template."""
        self.assertEqual(filled("Hi {{caller_name}}", {"caller_name": "{{caller}}{% for %}"}), "Hi {{caller}}{% for %}")

    def test_refused(self) -> None:
        """Nothing that could hold up everybody's calls, or look behind the values; told with the line."""
        for text in (
            "{% for x in y %}{% endfor %}", "{{ 'a' * 999999999 }}", "{{ 9 ** 9 ** 9 }}", "{{ caller() }}",
            "{{ ''.join() }}", "{{ range(9) }}", "{% set x = 1 %}", "{% macro m() %}{% endmacro %}",
            "{% include 'x' %}", "{{ x|center(99999) }}", "{{ '%s'|format(x) }}", "{{ x|attr('y') }}", "{{ x ~ x }}",
            "{{", "{% if %}", "{{ 1 + 1 }}",
        ):  # fmt: skip
            with self.subTest(text), self.assertRaises(Invalid) as caught:
                check(f"First.\n{text}", "welcome")
            self.assertRegex(caught.exception.problems["welcome"], r"line \d")

    def test_too_much(self) -> None:
        """Templates that would take long to read, or too deep to read at all, are refused, and that at once."""
        for text in (
            "{{ x }}" * 5000, "{% if x %}a{% endif %}" * 1500, "{{ [" + "x," * 10_000 + "] }}", "{{" + "(" * 5000,
            "{{" + "(" * 90 + "x" + ")" * 90 + "}}", "{{" + "x or " * 400 + "x}}", "{{" + "not " * 400 + "x}}",
            "{{x" + "|upper" * 400 + "}}", "{{x" + ".a" * 400 + "}}", "{% if x %}" * 120 + "{% endif %}" * 120,
        ):  # fmt: skip
            began = time.process_time()
            with self.subTest(text[:20]), self.assertRaises(Invalid) as caught:
                check(text, "welcome")
            self.assertIn("welcome", caught.exception.problems)
            self.assertLess(time.process_time() - began, 5)
            self.assertEqual(filled(text, {}), text)

    def test_behind(self) -> None:
        """Attributes of Python are nothing."""
        for text in ("{{caller.__class__}}", "{{caller['__class__']}}", "{{headers.__init__}}", "{{customer.keys}}"):
            said = filled(text, {"caller": "7", "headers": Headers(), "customer": {}})
            self.assertNotRegex(said, "class|built|method|<")

    def test_left_as_it_is(self) -> None:
        """What cannot be read, as in instructions older than variables, is said as it stands."""
        for text in ("Say {{ literally", "{% nonsense %}", "Plain {braces} and 100 %"):
            self.assertEqual(filled(text, {}), text)
        self.assertEqual(filled("{{ x|tojson }}", {"x": object()}), "{{ x|tojson }}")

    def test_bounded(self) -> None:
        """However long a value is, an instruction stays one."""
        self.assertEqual(len(filled("{{x}}{{x}}", {"x": "y" * LONGEST})), LONGEST)

    def test_bombs(self) -> None:
        """No chain of filters makes a flood of a few words, neither when it is saved nor in a call."""
        quotes = '"' * 100
        for text in (
            "{{ x" + "|replace('', 'yyyyyyyyyyyy')" * 30 + " }}",
            "{{ x" + "|join('yyyyyyyyyyyy')" * 30 + " }}",
            "{{ 'abcdefghijklm'" + "|join('yyyyyyyyyyyy')" * 30 + " }}",
            "{{ q" + "|tojson" * 60 + " }}",
            "{{ x|tojson(indent=1000000000) }}",
            "{{ x|tojson(1000000000) }}",
            "{{ 1|round(1000000000, 'ceil') }}",
            "{{ 1.5|round(1000000000) }}",
            "{{ x }}" * 200,
        ):
            began = time.process_time()
            with contextlib.suppress(Invalid):
                check(text, "instruction")
            self.assertLessEqual(len(filled(text, {"x": "y" * 16_000, "q": quotes})), max(LONGEST, len(text)))
            self.assertLess(time.process_time() - began, 5)

    @given(st.text(alphabet="{}%# abx|.'\"[]()*~-\n", max_size=60))
    def test_anything(self, text: str) -> None:
        """Whatever is typed is refused or can be filled in."""
        with contextlib.suppress(Invalid):
            check(text, "instruction")
        self.assertIsInstance(filled(text, {"a": "1", "b": {"x": "2"}}), str)
