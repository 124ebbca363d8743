// The operations of regions and streams that are tried at every store.
#ifndef TESTS_CRASH_REGIONS_H_
#define TESTS_CRASH_REGIONS_H_

#include <functional>
#include <string>
#include <vector>

#include "pkram/region.h"

namespace pkramfs {

struct RegionStep {
  std::string name;  // with each "Class::Method" that it calls
  std::function<void(pkram::Region*)> run;
  bool changes = true;  // what can be loaded
};

std::vector<RegionStep> AllRegionSteps();

}  // namespace pkramfs

#endif  // TESTS_CRASH_REGIONS_H_
