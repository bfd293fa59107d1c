"""The table of licenses: identifiers, expressions, and what is refused."""

from __future__ import annotations

import pytest

from v2m.core.errors import USAGE, LicenseError, exit_code
from v2m.core.licenses import (
    DEPENDS_ON_SIZE,
    NON_COMMERCIAL,
    NOT_STATED,
    UNKNOWN,
    LicensedComponent,
    check_commercial_use,
    objection,
)


@pytest.mark.parametrize(
    ("license", "reason"),
    [
        ("MIT", None),
        ("apache-2.0", None),
        ("CC-BY-4.0", None),
        ("GPL-3.0-or-later", None),
        ("LGPL-2.1-only", None),
        ("cc-by-nc-4.0", NON_COMMERCIAL),
        ("CC-BY-NC-SA-4.0", NON_COMMERCIAL),
        ("stabilityai-ai-community", DEPENDS_ON_SIZE),
        ("tongyi-qianwen", DEPENDS_ON_SIZE),
        ("own-terms", UNKNOWN),
        ("other", UNKNOWN),
        ("MIT (of the repository)", UNKNOWN),
        (None, NOT_STATED),
        (" ", NOT_STATED),
        ("MIT AND CC0-1.0 AND public-domain", None),
        ("cc-by-4.0 AND cc-by-nc-4.0", NON_COMMERCIAL),
        ("mit, cc-by-nc-4.0", NON_COMMERCIAL),
        ("cc-by-nc-4.0 OR apache-2.0", None),
        ("cc-by-nc-4.0 OR own-terms", NON_COMMERCIAL),
        ("cc-by-nc-4.0 OR mit AND isc", None),
        ("cc-by-nc-4.0, mit OR apache-2.0", NON_COMMERCIAL),
        ("mit OR apache-2.0, cc-by-nc-4.0", NON_COMMERCIAL),
        ("mit OR cc-by-nc-4.0, isc", None),
        ("CC-BY-NC-4.0 AND (GPL-3.0 OR MIT OR Apache-2.0)", UNKNOWN),
    ],
)
def test_license_is_judged_by_the_table(license: str | None, reason: str | None) -> None:
    assert objection(license) == reason


def test_refusal_names_component_license_and_cure_once_each() -> None:
    bad = LicensedComponent("codec", "owner/codec", "cc-by-nc-4.0", "give another codec", "state it")
    open_ended = LicensedComponent("tagger", "Mine", None, "", "state it")
    good = LicensedComponent("generator", "owner/model", "mit")
    with pytest.raises(LicenseError) as caught:
        check_commercial_use([good, bad, open_ended, bad])
    text = str(caught.value)
    assert "the codec owner/codec (license cc-by-nc-4.0: it forbids commercial use): give another codec; and" in text
    assert "the tagger Mine (license not stated): state it" in text
    assert text.count("owner/codec") == 1
    assert "owner/model" not in text
    assert exit_code(caught.value) == USAGE
    check_commercial_use([good])


def test_refusal_says_why_a_license_is_not_known() -> None:
    offline = LicensedComponent("codec", "owner/codec", None, "", "state it", "not known: no network")
    with pytest.raises(LicenseError, match=r"the codec owner/codec \(license not known: no network\): state it"):
        check_commercial_use([offline])


def test_component_says_for_the_sidecar_whether_it_may_be_used_commercially() -> None:
    values = [LicensedComponent("codec", "c", license).to_dict()["commercial_use"] for license in ("mit", None)]
    assert values == [True, False]
