#include "mount/tools/command_line.h"

#include <CLI/CLI.hpp>
#include <cstdio>
#include <type_traits>

namespace pkramfs {

CommandLine::CommandLine(const std::string& program, const std::string& what,
                         const std::string& footer)
    : owned_(std::make_unique<CLI::App>(what, program)), app_(owned_.get()) {
  app_->footer(footer);
}

CommandLine::CommandLine(CLI::App* command) : app_(command) {}

CommandLine::~CommandLine() = default;

template <typename T>
void CommandLine::Option(const std::string& names, T* value, const std::string& help,
                         const std::string& kind) {
  CLI::Option* const option = app_->add_option(names, *value, help);
  if constexpr (std::is_arithmetic_v<T>) {
    option->capture_default_str();
  } else if constexpr (!std::is_same_v<T, std::string>) {
    option->allow_extra_args(false);
  } else if (!value->empty()) {
    option->capture_default_str();
  }
  if (!kind.empty()) option->type_name(kind);
}

template void CommandLine::Option(const std::string&, std::string*, const std::string&,
                                  const std::string&);
template void CommandLine::Option(const std::string&, std::vector<std::string>*, const std::string&,
                                  const std::string&);
template void CommandLine::Option(const std::string&, int*, const std::string&, const std::string&);
template void CommandLine::Option(const std::string&, uint32_t*, const std::string&,
                                  const std::string&);
template void CommandLine::Option(const std::string&, uint64_t*, const std::string&,
                                  const std::string&);
template void CommandLine::Option(const std::string&, double*, const std::string&,
                                  const std::string&);

void CommandLine::Required(const std::string& name, std::string* value, const std::string& help) {
  app_->add_option(name, *value, help)->required();
}

void CommandLine::Rest(const std::string& name, std::vector<std::string>* values,
                       const std::string& help, Least least) {
  app_->add_option(name, *values, help)->required(least == Least::kOne);
}

void CommandLine::Flag(const std::string& names, bool* value, const std::string& help) {
  app_->add_flag(names, *value, help);
}

void CommandLine::Ignored(const std::string& name, const std::string& help) {
  app_->add_option(name, help)->expected(0, 1);
}

CommandLine& CommandLine::Command(const std::string& name, const std::string& what) {
  app_->require_subcommand(1);
  // Options of the program are taken behind the command, too.
  commands_.emplace_back(new CommandLine(app_->add_subcommand(name, what)->fallthrough()));
  return *commands_.back();
}

bool CommandLine::given() const { return app_->parsed(); }

std::optional<int> CommandLine::Parse(int argc, char** argv, int wrong_usage) {
  const std::string name = app_->get_name();
  app_->set_version_flag("--version,-V", name + " " PKRAMFS_VERSION);
  try {
    app_->parse(argc, argv);
    return std::nullopt;
  } catch (const CLI::CallForHelp&) {
    std::fputs(app_->help().c_str(), stdout);
    return 0;
  } catch (const CLI::CallForAllHelp&) {
    std::fputs(app_->help("", CLI::AppFormatMode::All).c_str(), stdout);
    return 0;
  } catch (const CLI::CallForVersion& e) {
    std::printf("%s\n", e.what());
    return 0;
  } catch (const CLI::ParseError& e) {
    // The help of the command that was typed, if one was.
    const std::vector<CLI::App*> typed = app_->get_subcommands();
    const std::string whole = typed.empty() ? name : name + " " + typed.front()->get_name();
    std::fprintf(stderr, "%s: %s: see %s --help\n", whole.c_str(), e.what(), whole.c_str());
    return wrong_usage;
  }
}

namespace {

std::string Escaped(char c) {
  char text[8];
  std::snprintf(text, sizeof(text), "\\x%02x", static_cast<unsigned char>(c));
  return text;
}

}  // namespace

std::string Printable(const std::string& text) {
  std::string printable;
  for (const char c : text) {
    const bool control = static_cast<unsigned char>(c) < 0x20 || c == 0x7f;
    printable += control ? Escaped(c) : std::string(1, c);
  }
  return printable;
}

}  // namespace pkramfs
