"""How machine code is read, and that each of test_machine_code's checks can fail: on short listings."""

from __future__ import annotations

import sys

import pytest

from build_support import machine_code
from build_support.errors import Unusable
from build_support.machine_code import Instruction, find_disassembler, names_of, read_sass
from build_support.warpgroup_products import (
    done_beside_one_group,
    group_sizes,
    groups_begun_beside_another,
    registers,
    touched,
    under_way,
)

LISTING = """
Fatbin elf code:
================
arch = sm_90a

	code for sm_90a
		Function : _Z3onePf
	.headerflags	@"EF_CUDA_SM90 EF_CUDA_VIRTUAL_SM(EF_CUDA_SM90)"
        /*0000*/              @!P0 LDG.E.128 R4, desc[UR4][R2.64+0x10] ;   /* 0x0000100402048981 */
                                                                           /* 0x000fe2000c1e1d00 */
        /*0010*/                   EXIT ;                                  /* 0x000000000000794d */
		..........

		Function : _Z3twoPf
        /*0000*/              @UP1 UIADD3 UR4, -UR5, 0x1, URZ ;            /* 0x0000000105041890 */
        /*10010*/                  NOP;                                    /* 0x0000000000007918 */
"""

# Attention's loop in small: a first tile, then tiles whose exponentials run beside the outputs' products.
TILES = """
WARPGROUP.ARRIVE
HGMMA.64x8x16.F32 R88, gdesc[UR4], RZ, !UPT
HGMMA.64x8x16.F32 R88, gdesc[UR4], R88, gsb0
WARPGROUP.DEPBAR.LE gsb0, 0x0
MUFU.EX2 R88, R88
F2FP.F16.F32.PACK_AB R100, R89, R88
WARPGROUP.ARRIVE
HGMMA.64x8x16.F32 R88, gdesc[UR4], RZ, !UPT
HGMMA.64x8x16.F32 R88, gdesc[UR4], R88, gsb0
HGMMA.64x16x16.F32 R24, R100, gdesc[UR8].tnspB, R24
HGMMA.64x16x16.F32 R24, R104, gdesc[UR8].tnspB, R24, gsb0
WARPGROUP.DEPBAR.LE gsb0, 0x1
MUFU.EX2 R88, R88
MUFU.EX2 R89, R89
WARPGROUP.DEPBAR.LE gsb0, 0x0
FMUL R24, R24, R2
F2FP.F16.F32.PACK_AB R100, R89, R88
@!P0 BRA 0x60
EXIT
"""
# A product's loop: a step's products begin before those of the step before have ended.
STEPS = """
WARPGROUP.ARRIVE
HGMMA.64x8x16.F32 R24, gdesc[UR4], R24
HGMMA.64x8x16.F32 R28, gdesc[UR8], R28, gsb0
WARPGROUP.DEPBAR.LE gsb0, 0x1
@P0 BRA 0x0
WARPGROUP.DEPBAR.LE gsb0, 0x0
STG.E.128 desc[UR4][R2.64], R24
EXIT
"""


def code_of(text: str) -> list[Instruction]:
    """The instructions of lines, 16 bytes each as on these GPUs."""
    lines = text.strip().splitlines()
    listing = [f"        /*{16 * place:04x}*/   {line} ;  /* 0x0 */" for place, line in enumerate(lines)]
    return read_sass("\n".join(["\t\tFunction : _Z3onePf", *listing]))["_Z3onePf"]


def touching(text: str) -> list[str]:
    return [instruction.opcode for instruction, _ in touched(code_of(text))]


def test_a_listing_is_read():
    assert read_sass(LISTING) == {
        "_Z3onePf": [
            Instruction(0, "!P0", "LDG.E.128", ("R4", "desc[UR4][R2.64+0x10]")),
            Instruction(0x10, "", "EXIT", ()),
        ],
        "_Z3twoPf": [
            Instruction(0, "UP1", "UIADD3", ("UR4", "-UR5", "0x1", "URZ")),
            Instruction(0x10010, "", "NOP", ()),
        ],
    }


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine without a disassembler; the function it gives puts tools into a folder, cuobjdump with this text."""
    monkeypatch.setattr(machine_code, "CUDA_ROOTS", (str(tmp_path / "usr-local-cuda"),))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("CUDA_PATH", raising=False)
    monkeypatch.setattr(sys, "path", [str(tmp_path / "packages")])
    for package in ("nvidia", "triton"):
        monkeypatch.delitem(sys.modules, package, raising=False)

    def put(folder, tools=("cuobjdump", "nvdisasm"), text="exit 0"):
        for tool in tools:
            path = tmp_path / folder / tool
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"#!/bin/sh\n{text}\n")
            path.chmod(0o755)
        return str(tmp_path / folder / tools[0])

    return put


@pytest.mark.parametrize(
    "folder",
    [
        "bin",
        "home/bin",
        "usr-local-cuda/bin",
        "packages/nvidia/cu13/bin",
        "packages/triton/backends/nvidia/bin",
    ],
)
def test_the_tools_are_found(machine, folder):
    placed = machine(folder)
    assert find_disassembler() == placed


def test_tools_of_two_folders_serve(machine):
    machine("packages/nvidia/cuda_nvdisasm/bin", ["nvdisasm"])
    placed = machine("bin", ["cuobjdump"])
    assert find_disassembler() == placed


def test_without_tools_the_reason_is_said(machine):
    with pytest.raises(Unusable, match=r"cuobjdump was found neither.*pip install nvidia-cuda-cuobjdump"):
        find_disassembler()
    machine("bin", ["cuobjdump"])
    with pytest.raises(Unusable, match="nvdisasm was found neither"):
        find_disassembler()


def test_an_object_is_disassembled(machine, tmp_path):
    machine("bin", text=f"echo \"$@\" >'{tmp_path}/asked'; echo '{LISTING}'")
    found = machine_code.machine_code(tmp_path / "x.cu.o", "sm_80")
    assert (tmp_path / "asked").read_text().split() == [
        "--gpu-architecture",
        "sm_80",
        "--dump-sass",
        f"{tmp_path}/x.cu.o",
    ]
    assert [names_of(code) for code in found.values()] == [{"LDG", "EXIT"}, {"UIADD3", "NOP"}]


def test_an_object_that_cannot_be_read_is_no_empty_one(machine, tmp_path):
    machine("bin", text="echo 'not an object' >&2; exit 1")
    with pytest.raises(Unusable, match="not an object"):
        machine_code.machine_code(tmp_path / "x.cu.o", "sm_80")


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("@P0 FADD R2, -R3.reuse, |R4|", {2, 3, 4}),
        ("FADD R2, R3, UR4", {2, 3}),
        ("UIADD3 UR4, UR5, UR6, URZ", set()),
        ("R2UR P1, UR4, R9", {9}),
        ("LOP3.LUT P2, RZ, R7, 0xff, RZ, 0xc0, !PT", {7}),
        ("HADD2.F32 R2, -RZ, R3.H1_H1", {2, 3}),
        ("S2R R0, SR_TID.X", {0}),
        ("LDG.E.128 R4, desc[UR4][R2.64+0x10]", {2, 3, 4, 5, 6, 7}),
        ("LDG.E.U16 R4, desc[UR4][R2.64]", {2, 3, 4}),
        ("STG.E.128 desc[UR4][R2.64], R8", {2, 3, 8, 9, 10, 11}),
        ("STS.64 [R23], R30", {23, 30, 31}),
        ("LDS R5, [R3+UR4]", {3, 5}),
        ("LDC.64 R6, c[0x0][0x210]", {6, 7}),
        ("LDSM.16.M88.4 R12, [R2+0x20]", {2, 12, 13, 14, 15}),
        ("SYNCS.PHASECHK.TRANS64.TRYWAIT P0, [R3+URZ], R4", {3, 4}),
        ("CS2R R24, SRZ", {24, 25}),
        ("CS2R.32 R24, SR_CLOCKLO", {24}),
        ("IMAD.WIDE R8, R3, 0x4, R10", {3, 8, 9, 10, 11}),
        ("IMAD.WIDE.U32 R8, P1, R3, R4, RZ", {3, 4, 8, 9}),
        ("IMAD.WIDE.U32 R8, R3, R4, c[0x0][0x210]", {3, 4, 8, 9}),
        ("IMAD.HI.U32 R8, P1, R3, R4, R10", {3, 4, 8, 10, 11}),
        ("IMAD.WIDE.U32.X R8, R3, R4, R10, P1", {3, 4, 8, 9, 10, 11}),
        ("SHF.L.U64.HI R6, R7, 0x2, R8", {6, 7, 8}),
        ("DADD R2, R4, R6", {2, 3, 4, 5, 6, 7}),
        ("HMMA.16816.F32 R8, R4, R2, R8", {2, 3, 4, 5, 6, 7, 8, 9, 10, 11}),
        ("RET.REL.NODEC R20 0x0", {20, 21}),
    ],
)
def test_the_registers_of_an_instruction(line, wanted):
    assert registers(code_of(line)[0]) == wanted


def test_opcodes_are_told_apart():
    assert names_of(code_of("STL.64 [R1], R2\nLDLU R2, [R1]\n@!PT EXIT")) == {"STL", "LDLU", "EXIT"}


@pytest.mark.parametrize("text", [TILES, STEPS])
def test_sound_code_touches_nothing(text):
    code = code_of(text)
    assert touched(code) == []
    assert all(under_way(code))  # every instruction is reached


@pytest.mark.parametrize(
    "line",
    [
        "FMUL R24, R24, R2",  # sums
        "@P1 MOV R31, R2",  # the last of them
        "MOV R2, R28",
        "STS.128 [R2], R21",
        "LDS.64 R23, [R2]",
        "CS2R R30, SRZ",
        "STS [R25+UR4], R2",
        "LDG.E R2, desc[UR4][R23.64]",
        "F2FP.F16.F32.PACK_AB R100, R89, R88",  # the left operand
        "MOV R2, R107",
        "HGMMA.64x8x16.F32 R28, gdesc[UR4], R28, gsb0",  # a part of the sums, as its own
        "HGMMA.64x8x16.F32 R112, R28, gdesc[UR4], R112, gsb0",  # as its left operand
        "HGMMA.64x8x16.F32 R100, gdesc[UR4], RZ, !UPT, gsb0",
    ],
)
def test_a_touched_register_is_found(line):
    opcode = line.removeprefix("@P1 ").split()[0]
    # A place of the outputs' products; the scores were waited for.
    assert opcode in touching(TILES.replace("MUFU.EX2 R89, R89", line))
    assert opcode not in touching(TILES.replace("FMUL R24, R24, R2", line))


def test_a_register_that_is_touched_in_the_next_round_is_found():
    # In front of the loop's first product, where those of the round before are under way; in order it comes before all.
    assert touching(STEPS.replace("WARPGROUP.ARRIVE", "MOV R24, RZ")) == ["MOV"]


def test_only_a_wait_that_every_thread_does_ends_products():
    late = STEPS.replace("WARPGROUP.DEPBAR.LE gsb0, 0x0", "@P0 WARPGROUP.DEPBAR.LE gsb0, 0x0")
    assert touching(late) == ["STG.E.128"]
    assert touching(STEPS.replace("WARPGROUP.DEPBAR.LE gsb0, 0x0", "NOP")) == ["STG.E.128"]


def test_threads_that_meet_go_on_where_they_meet():
    text = """
    BSSY B0, 0x60
    @P0 BRA 0x40
    HGMMA.64x8x16.F32 R24, gdesc[UR4], RZ, !UPT, gsb0
    BSYNC B0
    FADD R24, R24, R2
    BSYNC B0
    FADD R2, R2, R2
    WARPGROUP.DEPBAR.LE gsb0, 0x0
    EXIT
    """
    assert touching(text) == []
    assert touching(text.replace("FADD R2, R2, R2", "FMUL R2, R24, R2")) == ["FMUL"]


def test_called_functions_are_followed_and_unknown_jumps_refused():
    text = """
    HGMMA.64x8x16.F32 R24, gdesc[UR4], RZ, !UPT, gsb0
    CALL.REL.NOINC 0x50
    WARPGROUP.DEPBAR.LE gsb0, 0x0
    FMUL R24, R24, R2
    EXIT
    MOV R2, R24
    RET.REL.NODEC R4 0x0
    """
    assert touching(text) == ["MOV"]
    with pytest.raises(ValueError, match="BRX R8 -0x40: where it goes to is not known"):
        touched(code_of(text.replace("MOV R2, R24", "BRX R8 -0x40")))


def test_a_wait_above_the_softmax_is_found():
    both, end = "MUFU.EX2 R88, R88\nMUFU.EX2 R89, R89", "WARPGROUP.DEPBAR.LE gsb0, 0x0"
    assert f"{both}\n{end}" in TILES
    assert done_beside_one_group(code_of(TILES), "MUFU.EX2") == 2
    halfway = both.replace("\n", f"\n{end}\n")
    assert done_beside_one_group(code_of(TILES.replace(f"{both}\n{end}", halfway)), "MUFU.EX2") == 1
    assert done_beside_one_group(code_of(TILES.replace(f"{both}\n{end}", f"{end}\n{both}")), "MUFU.EX2") == 0
    # Nor do they count where the scores are under way too.
    assert done_beside_one_group(code_of(TILES.replace("gsb0, 0x1", "gsb0, 0x2")), "MUFU.EX2") == 0


def test_products_that_wait_for_each_other_are_found():
    assert group_sizes(code_of(STEPS)) == [2]
    assert groups_begun_beside_another(code_of(STEPS)) == 1
    alone = code_of(STEPS.replace("R24, gdesc[UR4], R24", "R24, gdesc[UR4], R24, gsb0"))
    assert group_sizes(alone) == [1, 1]
    assert groups_begun_beside_another(code_of(STEPS.replace("gsb0, 0x1", "gsb0, 0x0"))) == 0
