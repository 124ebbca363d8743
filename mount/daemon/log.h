// The log, for operators: syslog(3), and so the journal; with -f, standard error.
#ifndef MOUNT_DAEMON_LOG_H_
#define MOUNT_DAEMON_LOG_H_

#include <syslog.h>

#include <string>

namespace pkramfs {

// To be called before the first line.
void LogToStandardError();

// Writes a line.  This may wait for the process that writes the log, and that process may wait for
// a file of this mount.  So the caller must have nothing left to do that serving needs. `priority`:
// LOG_INFO, LOG_WARNING, LOG_ERR.
void Log(int priority, const std::string& line);

}  // namespace pkramfs

#endif  // MOUNT_DAEMON_LOG_H_
