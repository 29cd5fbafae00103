"""What the demo voice understands and answers."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from extenbot.consent import Consent
from extenbot.sandbox import reply
from extenbot.sandbox.figures import numbers
from extenbot.sandbox.reply import Answer, Call, answer, told
from extenbot.sandbox.scripted import exact_words


def tool(name: str, description: str = "", **properties: Any) -> dict[str, Any]:
    """A function tool; all its properties are required."""
    schema = {"type": "object", "required": list(properties), "properties": properties}
    return {"type": "function", "name": name, "description": description, "parameters": schema}


NUMBER = {"type": "number"}
TWO_NUMBERS = tool(
    "two_numbers",
    "If the user wants to provide two numbers, ask for and process two numbers.",
    number1={**NUMBER, "description": "First number"},
    number2={**NUMBER, "description": "Second number"},
)
WEATHER = tool("get_forecast", "Tells the weather in a city.", city={"type": "string"}, days={"type": "integer"})
END, TRANSFER = tool("end_call"), tool("transfer_call")


class Figures(SynchronousTestCase):
    def test_spoken(self) -> None:
        """Numbers are understood as digits and as words."""
        for sentence, expected in (
            ("seven and five", [7, 5]),
            ("twenty-one, 3.5 and 1,200", [21, 3.5, 1200]),
            ("one hundred and five", [105]),
            ("two thousand three hundred forty two", [2342]),
            ("one two three", [1, 2, 3]),
            ("minus four and -2", [-4, -2]),
            ("twenty thirty", [20, 30]),
            ("no number at all", []),
            ("a hundred", []),
        ):
            self.assertEqual(numbers(sentence), expected, sentence)

    @given(st.text(alphabet="0123456789,.- andtwohure", max_size=60))
    def test_anything(self, sentence: str) -> None:
        """Any text gives numbers or none."""
        self.assertIsInstance(numbers(sentence), list)


class Answers(SynchronousTestCase):
    def test_said_back(self) -> None:
        """What means nothing is said back; silence is told."""
        self.assertEqual(answer("Red roses, please.", []), Answer("You said: Red roses, please."))
        self.assertEqual(answer(" ... ", []), Answer("Sorry, I did not hear you."))

    def test_goodbye(self) -> None:
        """Goodbye is said, and the call ended when the bot may do that."""
        self.assertEqual(answer("Thank you, good-bye.", [END]), Answer("Goodbye.", Call("end_call", {})))
        self.assertEqual(answer("Bye!", []), Answer("Goodbye."))

    def test_operator(self) -> None:
        """Who asks for an operator is transferred, when there is a transfer."""
        found = answer("Can I talk to an operator?", [END, TRANSFER])
        self.assertEqual(found, Answer("One moment, I will connect you.", Call("transfer_call", {})))
        self.assertEqual(answer("An operator please", [END]).call, None)

    def test_function(self) -> None:
        """The words of a function's name call it with the numbers heard."""
        found = answer("I have two numbers, seven and 5.", [END, TWO_NUMBERS])
        self.assertEqual(found, Answer("", Call("two_numbers", {"number1": 7, "number2": 5})))

    def test_function_by_description(self) -> None:
        """Two words of a function's description call it; text goes into strings."""
        heard = "What is the weather in the city for 3 days?"
        found = answer(heard, [TWO_NUMBERS, WEATHER])
        self.assertEqual(found.call, Call("get_forecast", {"city": heard, "days": 3}))

    def test_asks_for_what_is_missing(self) -> None:
        """A missing number is asked for, and the next turn fills it."""
        found = answer("I want to give two numbers.", [TWO_NUMBERS])
        self.assertEqual(found, Answer("Please tell me: First number, Second number.", pending="two_numbers"))
        then = answer("Four and nine", [TWO_NUMBERS], "two_numbers")
        self.assertEqual(then.call, Call("two_numbers", {"number1": 4, "number2": 9}))
        self.assertEqual(answer("Never mind", [TWO_NUMBERS], "two_numbers"), Answer("You said: Never mind"))

    def test_choices(self) -> None:
        """Of a list of values the one heard is taken; yes and no are understood."""
        lamp = tool("switch_lamp", "", state={"type": "string", "enum": ["off", "on"]}, now={"type": "boolean"})
        found = answer("switch the lamp on, not now", [lamp])
        self.assertEqual(found.call, Call("switch_lamp", {"state": "on", "now": False}))

    @given(
        st.text(max_size=40),
        st.recursive(
            st.none() | st.integers() | st.text(max_size=6),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(["properties", "required", "type", "enum", "a", "description"]), inner, max_size=4
                )
            ),
            max_leaves=10,
        ),
    )
    def test_odd_tools(self, heard: str, parameters: Any) -> None:
        """A tool with any schema is no trouble."""
        found = answer(heard + " do it", [{"type": "function", "name": "do_it", "parameters": parameters}])
        self.assertIsInstance(found, Answer)

    def test_consent(self) -> None:
        """What the caller has to agree to is known by its result, and yes and no for what they are."""
        asked = Consent().ask("order", {"what": "tea"}, 1, lambda _yes, _call: None)
        self.assertEqual(reply.consent(asked), "request-1")
        for other in ("Agreed.", '{"status": "done"}', "{", '["agree"]'):
            self.assertEqual(reply.consent(other), "")
        for words, agreed in (
            ("Yes, please!", True),
            ("Okay.", True),
            ("No, thank you.", False),
            ("Please don't", False),
        ):
            answer = reply.decided(words, "request-1")
            assert answer is not None
            self.assertEqual(answer.call, Call("caller_decision", {"request": "request-1", "agreed": agreed}))
        self.assertIsNone(reply.decided("What was that?", "request-1"))

    def test_results(self) -> None:
        """The result of a function is said in words, without JSON."""
        for output, words in (
            ("Twelve.", "Twelve."),
            ("Say this to the user: Twelve.", "Twelve."),
            ('{"answer": "It is sunny"}', "It is sunny"),
            ('{"sum_total": 12, "ok": true}', "sum total: 12, ok: yes"),
            ("[1, 2]", "1, 2"),
            ("", "It is done."),
        ):
            self.assertEqual(told(output), words)
        self.assertEqual(len(told(json.dumps("x" * 9999))), 600)

    def test_exact_words(self) -> None:
        """The welcome message is found in the instructions, quotes in it included."""
        self.assertEqual(
            exact_words('Be kind.\n\nSay exactly: "We say "hi" here." and then wait.'), 'We say "hi" here.'
        )
        self.assertEqual(exact_words(None, "Be kind."), "")
