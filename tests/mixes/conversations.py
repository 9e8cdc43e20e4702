"""Conversations of the project's own in the schema of the Dolci sets: what the chat templates are compared on."""

SYSTEM = {"role": "system", "content": "You are a patient tutor."}
FUNCTIONS = '[{"type": "function", "function": {"name": "tide", "parameters": {"type": "object"}}}]'


def _turn(role, content, **more):
    return {"role": role, "content": content, **more}


CONVERSATIONS = {
    "single": [_turn("user", "Name a river."), _turn("assistant", "The Elbe.")],
    "multi_turn": [
        _turn("user", "Name a river.\nJust one."),
        _turn("assistant", "The Elbe."),
        _turn("user", "Another, please"),
        _turn("assistant", "The Douro.\n\nIt ends in Porto."),
    ],
    "system": [SYSTEM, _turn("user", "What is 3 + 4?"), _turn("assistant", "3 + 4 = 7")],
    "tools": [
        _turn("system", "You call functions.", functions=FUNCTIONS, function_calls=None),
        _turn("user", "When is high tide in Brest?", functions=None, function_calls=None),
        _turn("assistant", None, functions=None, function_calls='tide(port="Brest")'),
        _turn("environment", '{"high": "04:12"}', functions=None, function_calls=None),
        _turn("assistant", "High tide is at 04:12.", functions=None, function_calls=None),
    ],
    "tools_and_words": [
        _turn("system", "You call functions.", functions=FUNCTIONS),
        _turn("user", "Brest and Nantes?"),
        _turn("assistant", "I look both up. ", function_calls='tide(port="Brest")\ntide(port="Nantes")'),
    ],
    "thinking": [
        _turn("user", "What is 12 * 12?"),
        _turn("assistant", "<think>\n12 * 12 = 144.\n</think>\n144"),
    ],
    "thinking_multi_turn": [
        _turn("user", "What is 12 * 12?"),
        _turn("assistant", "144"),
        _turn("user", "And 13 * 13?"),
        _turn("assistant", "<think> 169 </think>169  "),
    ],
}
PROMPTS = {
    "prompt": [_turn("user", "Name a river.")],
    "prompt_with_system": [SYSTEM, _turn("user", "What is 3 + 4?")],
    "prompt_after_turns": [*CONVERSATIONS["single"], _turn("user", "Another?")],
}
