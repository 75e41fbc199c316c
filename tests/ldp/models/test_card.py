import pytest

from ldp.models.card import Card, read_card


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("# micro\n\n- Data: none\n- Licence: CC0-1.0\n", Card("CC0-1.0")),
        ("**Licence:** MIT, see below\n", Card("MIT, see below")),
        ("License: CC-BY-4.0", Card("CC-BY-4.0")),
        ("Licence: MIT\nTraining radius: 12 px\n", Card("MIT", 12.0)),
        ("- Training radius: 12.5 px, near and far", Card("", 12.5)),
        ("The licence is unclear, and so is the training radius.", Card()),
        ("Training radius: unknown", Card()),
    ],
)
def test_a_card_gives_licence_and_training_radius(tmp_path, text, expected):
    (tmp_path / "micro.md").write_text(text)
    assert read_card(tmp_path / "micro.safetensors") == expected


def test_weights_without_a_card_have_an_empty_one(tmp_path):
    assert read_card(tmp_path / "micro.safetensors") == Card()
