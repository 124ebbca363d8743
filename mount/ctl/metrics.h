// pkramctl metrics: what daemons count, in the text format of Prometheus.
// https://prometheus.io/docs/instrumenting/exposition_formats/
#ifndef MOUNT_CTL_METRICS_H_
#define MOUNT_CTL_METRICS_H_

#include <string>
#include <vector>

#include "mount/ctl/list.h"

namespace pkramfs {

// The metrics of mounted regions; the others have none.  `now`: seconds since 1970.
std::string MetricsOf(const std::vector<SeenRegion>& regions, int64_t now);

// Prints those of `places` (regions or directories on which they are mounted), or of every mount if
// there are none.  Returns the exit status.
int RunMetrics(const std::vector<std::string>& places);

}  // namespace pkramfs

#endif  // MOUNT_CTL_METRICS_H_
