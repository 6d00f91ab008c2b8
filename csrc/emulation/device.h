// The emulated side of common/device.cuh.
#pragma once

#include "emulation/intrinsics.h"
#include "emulation/launch.h"
#include "emulation/ptx.h"
#include "emulation/ptx_fp8.h"
#include "emulation/runtime.h"
#include "emulation/types.h"
