"""What the commands of LaTeX stand for, where an answer's meaning depends on it."""

from __future__ import annotations


def _words(text: str) -> list[str]:
    return text.split()


_GREEK = _words(
    "alpha α beta β gamma γ delta δ epsilon ε varepsilon ε zeta ζ eta η theta θ vartheta θ iota ι kappa κ lambda λ "
    "mu μ nu ν "
    "xi ξ pi π varpi π rho ρ sigma σ tau τ upsilon υ phi φ varphi φ chi χ psi ψ omega ω Gamma Γ Delta Δ Theta Θ "
    "Lambda Λ Xi Ξ Pi Π Sigma Σ Upsilon Υ Phi Φ Psi Ψ Omega Ω"
)
SYMBOLS = {
    **dict(zip(_GREEK[::2], _GREEK[1::2], strict=True)),
    "cdot": "*", "times": "*", "ast": "*", "div": "/", "le": "<=", "leq": "<=", "leqslant": "<=", "ge": ">=",
    "geq": ">=", "geqslant": ">=", "lt": "<", "gt": ">", "ne": "!=", "neq": "!=", "pm": "±", "mp": "∓", "to": "->",
    "rightarrow": "->", "longrightarrow": "->", "implies": "=>", "Rightarrow": "=>", "in": "∈", "notin": "∉",
    "cup": "∪", "cap": "∩", "infty": "∞", "emptyset": "∅", "varnothing": "∅", "ldots": "...", "dots": "...",
    "cdots": "...", "prime": "'", "degree": "°", "approx": "≈", "sim": "~", "mid": "|", "vert": "|", "lvert": "|",
    "rvert": "|", "lbrace": r"\{", "rbrace": r"\}", "lbrack": "[", "rbrack": "]", "lparen": "(", "rparen": ")",
    "langle": "⟨", "rangle": "⟩", "lfloor": "⌊", "rfloor": "⌋", "lceil": "⌈", "rceil": "⌉", "setminus": "∖",
    "subset": "⊂", "subseteq": "⊆", "land": "∧", "wedge": "∧", "lor": "∨", "vee": "∨", "neg": "¬", "lnot": "¬",
    "perp": "⊥", "parallel": "∥", "angle": "∠", "triangle": "△", "circ": "∘", "euro": "€", "pounds": "£",
    "bmod": " mod ", "quad": " ", "qquad": " ", "space": " ", "dollar": "$", "colon": ":", "textdollar": "$",
    "percent": "%", "textdegree": "°", "backslash": "∖", "bullet": "*",
}  # fmt: skip
TYPED = str.maketrans({
    "×": "*", "·": "*", "⋅": "*", "∙": "*", "∗": "*", "÷": "/", "∕": "/", "≤": "<=", "⩽": "<=", "≦": "<=", "≥": ">=",
    "⩾": ">=", "≧": ">=", "≠": "!=", "→": "->", "⇒": "=>", "∣": "|", "ϕ": "φ", "ϵ": "ε", "ϑ": "θ", "µ": "μ",
})  # fmt: skip
FUNCTIONS = frozenset(
    _words(
        "sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh log ln lg exp det dim ker gcd lcm min max sup inf "
        "lim arg deg mod sgn Re Im Pr"
    )
)
DROPPED = frozenset(
    _words(
        "displaystyle textstyle scriptstyle left right middle big Big bigg Bigg bigl bigr Bigl Bigr biggl biggr Biggl "
        "Biggr bigm limits nolimits hfill hspace vspace mathstrut strut noindent centering large Large normalsize "
        "small nonumber allowbreak newline rm bf it sf"
    )
)
TEXT = frozenset(
    _words(
        "text textbf textit textrm textsf texttt textnormal mbox hbox emph mathrm mathbf mathsf mathit mathtt "
        "mathnormal operatorname bm boldsymbol boxed fbox framebox mathop mathord mathbin mathrel textup underline "
        "uline textmd"
    )
)
