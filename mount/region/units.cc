#include "mount/region/units.h"

#include <iterator>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace pkramfs {

std::string Human(uint64_t bytes) {
  const char* const units[] = {"", " KiB", " MiB", " GiB", " TiB"};
  size_t unit = 0;
  auto value = static_cast<double>(bytes);
  while (unit < 4 && value >= 10240) {
    value /= 1024;
    ++unit;
  }
  return absl::StrFormat("%.6g%s", value, units[unit]);
}

std::string Rounded(uint64_t bytes) {
  if (bytes < 1000) return absl::StrCat(bytes, " B");
  const char* const units[] = {"KiB", "MiB", "GiB", "TiB"};
  double value = static_cast<double>(bytes) / 1024;
  size_t unit = 0;
  while (value >= 999.5 && unit + 1 < std::size(units)) {
    value /= 1024;
    ++unit;
  }
  const int digits = value < 9.995 ? 2 : value < 99.95 ? 1 : 0;
  return absl::StrFormat("%.*f %s", digits, value, units[unit]);
}

std::string Duration(uint64_t seconds) {
  if (seconds < 120) return absl::StrCat(seconds, " s");
  if (seconds < 120 * 60) return absl::StrCat(seconds / 60, " min");
  if (seconds < 48 * 3600) return absl::StrCat(seconds / 3600, " h");
  return absl::StrCat(seconds / 86400, " days");
}

}  // namespace pkramfs
