// What an operator should know later: to syslog(3), and so to the journal; with -f, to standard
// error.
#ifndef MOUNT_DAEMON_LOG_H_
#define MOUNT_DAEMON_LOG_H_

#include <syslog.h>

#include <string>

namespace pkramfs {

// Before the first line.
void LogToStandardError();

// May wait for who writes the log, and that one for a file of this mount: whoever calls it has
// nothing left to do that serving needs.
// `priority`: LOG_INFO, LOG_WARNING, LOG_ERR.
void Log(int priority, const std::string& line);

}  // namespace pkramfs

#endif  // MOUNT_DAEMON_LOG_H_
