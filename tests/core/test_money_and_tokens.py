"""Prices, amounts in words, and guesses at token counts."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moa_cli.core.conversation import Message, Usage
from moa_cli.core.money import FREE, Price, cost_text, priced, usd
from moa_cli.core.tokens import RunningCount, estimate_tokens, prompt_tokens

COUNTED = Usage(prompt_tokens=1000, completion_tokens=500, cached_tokens=400, calls=1)


# Tokens of the same text for GPT-4, GPT-4o, DeepSeek V3 and Claude 2, by their own tokenizers.
COUNTED_TEXTS = {
    "thai": (
        (205, 91, 78, 362),
        "มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกันในเกียรติศักดิ์และสิทธิ ต่างมี"
        "เหตุผลและมโนธรรม และควรปฏิบัติต่อกันด้วยเจตนารมณ์แห่งภราดรภาพ วันนี้อา"
        "กาศดีมาก ฉันอยากไปเที่ยวทะเลกับเพื่อน ๆ แต่ต้องทำงานให้เสร็จก่อน",
    ),
    "hindi": (
        (231, 66, 123, 253),
        "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता और स"
        "मानता प्राप्त है। उन्हें बुद्धि और अन्तरात्मा की देन प्राप्त है और परस"
        "्पर उन्हें भाईचारे के भाव से बर्ताव करना चाहिए। आज मौसम बहुत अच्छा है "
        "और मैं बाजार जा रहा हूँ।",
    ),
    "tamil": (
        (229, 53, 86, 315),
        "மனிதப் பிறவியினர் சகலரும் சுதந்திரமாகவே பிறக்கின்றனர்; அவர்கள் மதிப்பி"
        "லும், உரிமைகளிலும் சமமானவர்கள், அவர்கள் நியாயத்தையும் மனச்சாட்சியையும்"
        " இயற்பண்பாகப் பெற்றவர்கள்.",
    ),
    "burmese": (
        (405, 107, 182, 191),
        "လူတိုင်းသည် တူညီ လွတ်လပ်သော ဂုဏ်သိက္ခာဖြင့် လည်းကောင်း၊ တူညီလွတ်လပ်သော"
        " အခွင့်အရေးများဖြင့် လည်းကောင်း၊ မွေးဖွားလာသူများ ဖြစ်သည်။ ထိုသူတို့၌ "
        "ပိုင်းခြား ဝေဖန်တတ်သော ဉာဏ်နှင့် ကျင့်ဝတ် သိတတ်သော စိတ်တို့ရှိကြသည်။",
    ),
    "tibetan": (
        (336, 244, 185, 486),
        "འགྲོ་བ་མིའི་རིགས་རྒྱུད་ཡོངས་ལ་སྐྱེས་ཙམ་ཉིད་ནས་ཆེ་མཐོངས་དང༌། ཐོབ་ཐངགི་ར"
        "ང་དབང་འདྲ་མཉམ་དུ་ཡོད་ལ། ཁོང་ཚོར་རང་བྱུང་གི་བློ་རྩལ་དང་བསམ་ཚུལ་བཟང་པོ་འ"
        "དོན་པའི་འོས་བབས་ཀྱང་ཡོད།",
    ),
    "amharic": (
        (287, 218, 226, 311),
        "የሰው ልጅ ሁሉ ሲወለድ ነጻና በክብርና በመብትም እኩልነት ያለው ነው። የተፈጥሮ ማስተዋልና ሕሊና ስላለው አንዱ"
        " ሌላውን በወንድማማችነት መንፈስ መመልከት ይገባዋል። ዛሬ አየሩ በጣም ጥሩ ነው።",
    ),
    "georgian": (
        (358, 57, 135, 221),
        "ყველა ადამიანი იბადება თავისუფალი და თანასწორი თავისი ღირსებითა და უფლ"
        "ებებით. მათ მინიჭებული აქვთ გონება და სინდისი და ერთმანეთის მიმართ უნდ"
        "ა იქცეოდნენ ძმობის სულისკვეთებით. დღეს კარგი ამინდია.",
    ),
    "armenian": (
        (336, 57, 96, 338),
        "Բոլոր մարդիկ ծնվում են ազատ ու հավասար իրենց արժանապատվությամբ ու իրավ"
        "ունքներով։ Նրանք ունեն բանականություն ու խիղճ և միմյանց պետք է եղբայրա"
        "բար վերաբերվեն։ Այսօր եղանակը շատ լավն է։",
    ),
    "arabic": (
        (133, 62, 66, 164),
        "يولد جميع الناس أحرارًا متساوين في الكرامة والحقوق. وقد وهبوا عقلاً وض"
        "ميرًا وعليهم أن يعامل بعضهم بعضًا بروح الإخاء. الطقس جميل اليوم وأريد "
        "أن أذهب إلى السوق مع أصدقائي بعد العمل.",
    ),
    "hebrew": (
        (181, 68, 76, 165),
        "כל בני אדם נולדו בני חורין ושווים בערכם ובזכויותיהם. כולם חוננו בתבונה"
        " ובמצפון, לפיכך חובה עליהם לנהוג איש ברעהו ברוח של אחווה. היום מזג האו"
        "ויר נעים מאוד ואני רוצה ללכת לים עם חברים.",
    ),
    "greek": (
        (201, 81, 107, 251),
        "Όλοι οι άνθρωποι γεννιούνται ελεύθεροι και ίσοι στην αξιοπρέπεια και τ"
        "α δικαιώματα. Είναι προικισμένοι με λογική και συνείδηση, και οφείλουν"
        " να συμπεριφέρονται μεταξύ τους με πνεύμα αδελφοσύνης. Σήμερα ο καιρός"
        " είναι πολύ καλός.",
    ),
    "russian": (
        (107, 59, 68, 125),
        "Все люди рождаются свободными и равными в своём достоинстве и правах. "
        "Они наделены разумом и совестью и должны поступать в отношении друг др"
        "уга в духе братства. Сегодня хорошая погода, и я хочу пойти гулять с д"
        "рузьями.",
    ),
    "chinese": (
        (90, 57, 44, 81),
        "人人生而自由，在尊严和权利上一律平等。他们赋有理性和良心，并应以兄弟关系的精神相"
        "对待。今天天气很好，我想和朋友们一起去海边玩，但是必须先把工作做完。",
    ),
    "japanese": (
        (106, 81, 60, 101),
        "すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等であ"
        "る。人間は、理性と良心とを授けられており、互いに同胞の精神をもって行動しなければ"
        "ならない。今日は天気がとてもいいです。",
    ),
    "korean": (
        (101, 60, 68, 114),
        "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다. "
        "인간은 천부적으로 이성과 양심을 부여받았으며 서로 형제애의 정신으로 행동"
        "하여야 한다. 오늘은 날씨가 아주 좋습니다.",
    ),
    "emoji": (
        (112, 71, 73, 104),
        "😀😂🥰👍🏽🎉🚀🔥💯🐍🌍👩‍💻👨‍👩‍👧‍👦❤️✅⚠️🤔🙏🏼🇩🇪🇯🇵🍕⭐✨🎂🥑🦀🐙🧠💡📈",
    ),
    "vietnamese": (
        (99, 59, 88, 153),
        "Tất cả mọi người sinh ra đều được tự do và bình đẳng về nhân phẩm và q"
        "uyền lợi. Mọi con người đều được tạo hoá ban cho lý trí và lương tâm v"
        "à cần phải đối xử với nhau trong tình anh em. Hôm nay thời tiết rất đẹ"
        "p.",
    ),
    "indonesian": (
        (66, 55, 56, 82),
        "Semua orang dilahirkan merdeka dan mempunyai martabat dan hak-hak yang"
        " sama. Mereka dikaruniai akal dan hati nurani dan hendaknya bergaul sa"
        "tu sama lain dalam semangat persaudaraan. Hari ini cuacanya sangat bag"
        "us.",
    ),
    "polish": (
        (75, 64, 67, 93),
        "Wszyscy ludzie rodzą się wolni i równi pod względem swej godności i sw"
        "ych praw. Są oni obdarzeni rozumem i sumieniem i powinni postępować wo"
        "bec innych w duchu braterstwa. Dziś jest bardzo ładna pogoda.",
    ),
}


def test_a_price_is_per_million_and_cached_tokens_may_have_their_own() -> None:
    assert Price(2, 10).of(COUNTED) == pytest.approx(0.007)
    assert Price(2, 10, cached=0.5).of(COUNTED) == pytest.approx(0.0064)
    assert FREE.of(COUNTED) == 0


def test_a_call_without_a_price_is_unpriced_and_not_free() -> None:
    unknown, known = priced(COUNTED, None), priced(COUNTED, Price(2, 10))
    assert (unknown.cost, unknown.unpriced_calls) == (0, 1)
    assert known.cost == pytest.approx(0.007)
    assert known.unpriced_calls == 0
    assert cost_text(unknown) == "cost unknown"
    assert cost_text(known) == "$0.0070"
    assert cost_text(known + unknown) == "$0.0070 + ?"
    assert cost_text(priced(COUNTED, FREE)) == "$0"
    assert cost_text(Usage(calls=1, estimated_calls=1, cost=0.25)) == "~$0.25"


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (0, "$0"),
        (0.000_004_2, "$0.0000042"),
        (0.000_42, "$0.00042"),
        (0.0999, "$0.100"),
        (0.314, "$0.31"),
        (1, "$1.00"),
        (12.499, "$12.50"),
        (12345.6, "$12,345.60"),
    ],
)
def test_amounts_in_words(amount: float, text: str) -> None:
    assert usd(amount) == text


def test_only_an_empty_text_is_no_token() -> None:
    assert estimate_tokens("") == 0
    assert estimate_tokens(" ") == 1
    assert estimate_tokens("水は冷たい") in range(3, 8)
    assert prompt_tokens([Message("user", "hi")]) > estimate_tokens("hi")


def test_estimates_are_near_the_counts_of_a_real_tokenizer() -> None:
    folder = os.environ.get("MOA_TEST_DATA")
    if not folder:
        pytest.skip("MOA_TEST_DATA names no folder of evaluation data")
    data = Path(folder) / "alpaca_eval"
    template = (data / "judge_prompt_alpaca_eval_clf.txt").read_text("utf-8")
    ratios = []
    for file in ("gpt-3.5-turbo-1106", "claude-2", "vicuna-13b-v1.5"):
        for row in json.loads((data / f"slice50/annotations/{file}.json").read_text("utf-8")):
            counted = (row.get("raw_completion") or {}).get("total_tokens")
            if not counted:
                continue
            text = template
            for name in ("instruction", "output_1", "output_2"):
                text = text.replace(f"{{{name}}}", row[name])
            # The system message, the user's; one token of the count was the answer.
            _, system, _, user, _ = re.split(r"<\|im_(?:start|end)\|>", text)
            parts = (Message("system", system), Message("user", user))
            ratios.append(prompt_tokens(parts) / (counted - 1))
    assert len(ratios) > 100
    assert all(0.85 < ratio < 1.15 for ratio in ratios)


@pytest.mark.parametrize("language", COUNTED_TEXTS)
def test_other_scripts_are_guessed_within_the_stated_bounds(language: str) -> None:
    counts, text = COUNTED_TEXTS[language]
    guess = estimate_tokens(text)
    assert max(counts) / 2.5 <= guess <= min(counts) * 3


def test_a_text_in_pieces_is_counted_as_the_whole() -> None:
    for counts, text in COUNTED_TEXTS.values():
        running = RunningCount()
        for start in range(0, len(text), 3):
            running.take(text[start : start + 3])
        # Pieces are a token each at least; else as the text is guessed, but for what is not
        # looked at yet.
        assert running.tokens >= len(text) // 3
        assert running.tokens <= max(counts) * 2
    running = RunningCount()
    for _ in range(1000):
        running.take("እንደምን አደርክ ")
    assert running.tokens == pytest.approx(estimate_tokens("እንደምን አደርክ " * 1000), rel=0.05)


@given(st.text("abcXYZ 0189_-!.,\n\n\t\x0b\x1c\x00'\"", max_size=200))
def test_a_text_in_ascii_is_counted_like_any_other(text: str) -> None:
    # A letter of another script, parted from the rest by a space, counts for itself.
    beside = estimate_tokens(f"{text} é") - estimate_tokens("é")
    assert abs(estimate_tokens(text) - beside) <= 1
