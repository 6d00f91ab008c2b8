"""Which warpgroup products (HGMMA, QGMMA) are under way at each instruction of a kernel.

A product runs beside what follows it. "gsb0" on one closes a group of products; WARPGROUP.DEPBAR.LE gsb0, n waits until
at most n groups, the newest ones, are under way.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from build_support.machine_code import Instruction

PRODUCTS = ("HGMMA", "QGMMA")
_GROUPS_TOLD_APART = 8  # older ones are one group: no wait leaves so many


@dataclass(frozen=True)
class UnderWay:
    """Products that were started and not waited for, as places in the kernel's code.

    Attributes:
        groups: the closed ones, oldest first.
        open: those after the last closed group.
    """

    groups: tuple[frozenset[int], ...] = ()
    open: frozenset[int] = frozenset()

    @property
    def products(self) -> frozenset[int]:
        return self.open.union(*self.groups)

    def after(self, place: int, instruction: Instruction) -> UnderWay:
        if instruction.name in PRODUCTS:
            started = self.open | {place}
            if "gsb0" not in instruction.operands:
                return UnderWay(self.groups, started)
            groups = (*self.groups, started)
            if len(groups) > _GROUPS_TOLD_APART:
                groups = (groups[0] | groups[1], *groups[2:])
            return UnderWay(groups)
        if instruction.opcode.startswith("WARPGROUP.DEPBAR") and not instruction.guard:
            left = int(instruction.operands[1], 16)
            return UnderWay(self.groups[max(0, len(self.groups) - left) :], self.open)
        return self


def under_way(code: Sequence[Instruction]) -> list[set[UnderWay]]:
    """What may be under way before each instruction: a set, since several ways lead to it; empty where none does.

    Every way through the branches is followed, loops and called functions too. What registers and predicates hold is
    not known: a way may be one that no thread takes, and an instruction under a predicate counts as done, but for a wait.
    A called function is taken to return behind the call with as much under way as before it.

    Raises:
        ValueError: a branch goes to an address in a register.
    """
    followers = _followers(code)
    states: list[set[UnderWay]] = [set() for _ in code]
    waiting = [(0, UnderWay())] if code else []
    while waiting:
        place, state = waiting.pop()
        if state in states[place]:
            continue
        states[place].add(state)
        after = state.after(place, code[place])
        waiting += [(follower, after) for follower in followers[place]]
    return states


def _followers(code: Sequence[Instruction]) -> list[list[int]]:
    """The places that each instruction can be followed by."""
    place_of = {instruction.address: place for place, instruction in enumerate(code)}
    meetings = defaultdict(set)  # where the threads that a BSSY names go on together
    for instruction in code:
        if instruction.name == "BSSY":
            meetings[instruction.operands[0]].add(int(instruction.operands[1], 16))
    followers = []
    for place, instruction in enumerate(code):
        if instruction.name in ("BRX", "BRXU", "JMX", "JMXU"):  # by register
            raise ValueError(f"{instruction}: where it goes to is not known here")
        following = {place + 1} if place + 1 < len(code) else set()
        # One operand: "BRA P0, 0x40" and "BRA.DIV UR4, 0x40" have a condition there.
        always = not instruction.guard and len(instruction.operands) <= 1
        if instruction.name in ("EXIT", "RET") and not instruction.guard:
            following = set()
        elif instruction.name in ("BRA", "JMP", "CALL") or instruction.opcode == "WARPSYNC.COLLECTIVE":
            target = re.fullmatch(r"0x[0-9a-f]+", instruction.operands[-1])
            if target is None:
                raise ValueError(f"{instruction}: where it goes to is not known here")
            if always and instruction.opcode in ("BRA", "JMP"):
                following = set()
            following.add(place_of[int(target[0], 16)])
        elif instruction.name == "BSYNC":
            # The next instruction where it is a meeting place of this name, as the compiler lays most; else any of them.
            targets = {place_of[address] for address in meetings[instruction.operands[0]]}
            following = targets & following or targets or following
        followers.append(sorted(following))
    return followers


def touched(code: Sequence[Instruction]) -> list[tuple[Instruction, Instruction]]:
    """(instruction, product) where an instruction reads or writes a register of a product that is under way.

    Those are its sums, and the left operand where it lies in registers. A later product may add to the same sums.
    Uniform registers, descriptors among them, are read when a product starts. Not seen: whether what it reads in shared
    memory is there, and stays.
    """
    found = []
    for place, states in enumerate(under_way(code)):
        instruction = code[place]
        for product in sorted(frozenset().union(*(state.products for state in states))):
            if instruction.name in PRODUCTS:
                sums, left = product_registers(instruction)
                others, others_left = product_registers(code[product])
                clash = (sums != others and sums & others) or sums & others_left or left & others
            else:
                clash = registers(instruction) & frozenset().union(*product_registers(code[product]))
            if clash:
                found.append((instruction, code[product]))
    return found


def group_sizes(code: Sequence[Instruction]) -> list[int]:
    """How many products each closed group has; 1 each where ptxas lets every product wait for the one before."""
    states = under_way(code)
    return [
        min(len(state.open | {place}) for state in states[place])
        for place, instruction in enumerate(code)
        if instruction.name in PRODUCTS and "gsb0" in instruction.operands and states[place]
    ]


def groups_begun_beside_another(code: Sequence[Instruction]) -> int:
    """How many products begin a group while an older one can be under way."""
    return sum(
        instruction.name in PRODUCTS and any(state.groups and not state.open for state in states)
        for instruction, states in zip(code, under_way(code), strict=True)
    )


def done_beside_one_group(code: Sequence[Instruction], opcode: str) -> int:
    """How many instructions of `opcode` have exactly one group under way, whichever way led to them."""
    return sum(
        instruction.opcode == opcode and {(len(state.groups), len(state.open)) for state in states} == {(1, 0)}
        for instruction, states in zip(code, under_way(code), strict=True)
    )


def product_registers(product: Instruction) -> tuple[frozenset[int], frozenset[int]]:
    """Its sums, and the left operand where that lies in registers: HGMMA.64x128x16.F32 R24, R152, gdesc[UR16], R24."""
    columns = int(product.modifiers[0].split("x")[1])
    count = columns // 2 if "F32" in product.modifiers else columns // 4  # of 64 rows, 128 threads share them
    numbers = [_numbered(operand) for operand in product.operands]
    sums, left = set[int](), set[int]()
    descriptor = next(place for place, operand in enumerate(product.operands) if operand.startswith("gdesc"))
    for place, number in enumerate(numbers):
        if number is None:
            continue
        if place == 1 and descriptor == 2:
            left.update(range(number, number + 4))
        else:  # the result, and what it is added to
            sums.update(range(number, number + count))
    return frozenset(sums), frozenset(left)


def _numbered(operand: str) -> int | None:
    found = re.fullmatch(r"R(\d+)(\.\w+)*", operand)
    return int(found[1]) if found else None


_MEMORY = ("LD", "ST", "ATOM", "RED", "SYNCS")
_PAIRS = ("DADD", "DMUL", "DFMA", "DSETP", "DMNMX", "LEPC", "RET", "CALL")
_MATRICES = ("HMMA", "IMMA", "QMMA", "BMMA", "DMMA")


def registers(instruction: Instruction) -> frozenset[int]:
    """The registers that an instruction reads or writes; more where its opcode leaves open how wide an operand is.

    For each instruction of sm_90a's kernels these hold all that `nvdisasm -plr` marks, calls aside.
    """
    found: set[int] = set()
    data = [place for place, operand in enumerate(instruction.operands) if not re.fullmatch(r"!?U?P[T\d]", operand)]
    last = data[-1] if data else 0
    for place, operand in enumerate(instruction.operands):
        for match in re.finditer(r"\bR(\d+)((?:\.\w+)*)", operand):
            inside = operand.rfind("[", 0, match.start()) > operand.rfind("]", 0, match.start())
            if inside or ".64" in match[2]:  # an address
                width = 2 if ".64" in match[2] else 1
            else:
                width = _width(instruction, place, last)
            found.update(range(int(match[1]), int(match[1]) + width))
    return frozenset(found)


def _width(instruction: Instruction, place: int, last: int) -> int:
    """Registers of the operand at `place`, which is no address; `last`: the place of the last one that is no predicate."""
    name, modifiers = instruction.name, instruction.modifiers
    if name in _MATRICES:
        return 4  # at most
    if name in ("LDSM", "STSM"):
        return int(modifiers[-1]) if modifiers[-1].isdigit() else 1
    if name.startswith(_MEMORY):
        return next((int(word) // 32 for word in modifiers if word in ("64", "96", "128")), 1)
    if name == "CS2R":
        return 1 if "32" in modifiers else 2
    if name == "IMAD" and "WIDE" in modifiers:
        return 2 if place in (0, last) else 1
    if name == "IMAD" and "HI" in modifiers:
        return 2 if place == last else 1
    if name.startswith(_PAIRS) or (name in ("F2F", "F2I", "I2F", "FRND") and {"F64", "S64", "U64"} & {*modifiers}):
        return 2
    return 1
